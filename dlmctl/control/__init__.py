"""What a control is, how controls combine, and where they are found."""
