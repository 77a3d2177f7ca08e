"""A page in the browser: a door to the trainings and drawings of this package.

Trainings are processes of the command line, one at a time, in work dirs of
their own: so stopping, resuming and locking are the package's, and closing
the browser, or a second window, changes nothing. The page reads what they
leave in their folders.
"""
