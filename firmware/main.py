"""What a board runs after boot.py: the gateway, unless it crashes again and again. All of it is in life.py."""

import life

life.main()
