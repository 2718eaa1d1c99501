"""The playground: a web page that builds recipes from forms, runs them and shows the results."""
