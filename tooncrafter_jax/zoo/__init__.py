"""Networks of others, each with the code that brings its published weights here."""
