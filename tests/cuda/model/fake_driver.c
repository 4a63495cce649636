// A library that is there, as a driver's would be, and no plugin.
extern int fake_driver;
int fake_driver = 1;
