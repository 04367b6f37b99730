"""The commands of `tooncrafter`, one a file: parsing and printing."""
