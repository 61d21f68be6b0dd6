"""Exchange with other tools: masks out of a store as their files, and their files into a store."""
