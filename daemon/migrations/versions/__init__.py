"""One file per revision; a published revision is never changed."""
