"""Messages to people: written with the change they tell of, sent later, once."""
