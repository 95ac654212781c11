"""The browser module and the page, in headless Chromium and in node."""
