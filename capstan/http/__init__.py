"""What Capstan's two services share of HTTP: where they listen, their pages, their numbers."""
