"""What stands behind a page: requests, a line of trainings, their results.

    request --requests--> work dir --jobs--> checkpoints --studio--> pictures

A training is a process of the command line in a work dir of its own, one at a
time: so stopping, resuming and locking are those of the package. All that is
shown is read from what it leaves in its folder (`runs`), whoever started it.
A `site` is all of that for one folder.
"""
