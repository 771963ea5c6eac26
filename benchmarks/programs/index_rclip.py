"""rclip's own indexing of the current folder; its command would ask something as well."""

import os

from rclip import main

program, model, database = main.init_rclip(os.getcwd(), 8)
program.close()
model.close()
database.close()
