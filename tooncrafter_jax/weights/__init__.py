"""Parameters by name: file formats, the published names, model directories, groups and low-rank additions."""
