"""Small servers around sentence-transformers, as their own guides write them. They import nothing of the project."""
