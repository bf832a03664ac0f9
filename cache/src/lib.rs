//! How bytes are named and kept; knows no stage and no YAML.
