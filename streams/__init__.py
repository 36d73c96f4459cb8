"""rewindow: a feature pipeline on Kafka that can change its mind."""
