"""A distribution with one stage and one provider, each with settings, for tests/pipeline/test_plugin_settings.py."""
