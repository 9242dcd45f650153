"""The commands of the command line, one small module each; heavy imports happen when a command runs."""
