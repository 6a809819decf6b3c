"""The promises with real processes and sockets: what is killed with kill -9 is started again, under load.

The service, the workspace manager and the supervisors are processes of their own. What is true (workspaces, their
output, images) is kept by the test, so that it outlives them, and clients and their verdict know it.
"""
