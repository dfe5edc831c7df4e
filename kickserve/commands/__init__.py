"""The commands of `kickserve`, one a module; each is called `command` there."""
