copy into {table} from '{path}' file_format = (type = json);
