"""asyncio_server.py on uvloop; the same words."""

import asyncio_server
import uvloop

if __name__ == "__main__":
    uvloop.run(asyncio_server.serve())
