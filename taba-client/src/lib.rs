
//! taba-client
