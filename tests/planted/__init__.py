"""Ten classic bugs of such libraries, planted one by one: whether a test catches each of them."""
