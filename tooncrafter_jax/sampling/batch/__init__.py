"""Many clips in one run: which there are, which are still to be made, and the files that they become."""
