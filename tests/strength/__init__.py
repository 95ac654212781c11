"""How strong the tests are: what each module's own tests cover of it, and whether they notice when it is changed.

python -m tests.strength.coverage               after a run of the suite under coverage
python -m tests.strength.mutants --sample 300   random changes to the code, each of which a test should notice
"""
