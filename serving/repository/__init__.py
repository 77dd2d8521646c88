"""The model repository: what lies in it, in whichever layout, on whichever file system."""
