"""Preference data in other formats, to and from preferences folders; needs the extra `people`."""
