"""The course: checks of exercises, the student version, marking, the demo."""
