"""The networks of ToonCrafter, one a file, and their one composition (`tooncrafter`)."""
