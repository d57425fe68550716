
//! taba-handlers
