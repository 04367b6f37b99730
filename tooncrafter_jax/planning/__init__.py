"""What a config takes on machines that are not there: compiled programs, their memory, collectives and operations."""
