"""A page in the browser, in Gradio: what is asked for goes to the studio.

The page keeps nothing that counts: closing the browser, or opening a second
window, changes no training.
"""
