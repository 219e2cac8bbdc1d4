"""Floor 1: who has paid?

- `journal`  an append-only file of JSON lines; loading is replaying
- `ledger`   double entry for FLOPs, never overdrawn, shared by several processes
- `books`    the accounts of one sweep on it
"""
