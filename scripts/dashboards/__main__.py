"""Write the dashboards of the chart from the code beside this."""

import sys

from .boards import FOLDER, write_files

if __name__ == "__main__":
    write_files()
    sys.stdout.write(f"wrote {FOLDER.name}\n")
