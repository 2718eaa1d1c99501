"""The playground: a page in the browser that makes recipes out of forms and shows what comes of them."""
