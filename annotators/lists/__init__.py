"""Lists of the user's, such as blocked domains: files of them, and sorted keys that all processes of a machine map."""
