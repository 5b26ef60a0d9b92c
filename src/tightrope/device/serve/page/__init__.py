"""The dashboard: one page that shows what the server does, and a box to try its models.

Everything lies inside the page, and its policy forbids it to ask anybody but this server. It shows what the status
document says and computes nothing of its own; words from models and users become text and never HTML.
"""
