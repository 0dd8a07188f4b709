"""What every room leans on: what is accepted, files, commands, progress, the machine."""
