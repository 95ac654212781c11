"""The hardening chapter: what peers, systems and programs do to the library, on purpose or not, and what must hold.

Each test is named as the promise.  What belongs to one module alone is in that module's own tests; here is what only
shows when everything is at work, measured from outside wherever it can be.
"""
