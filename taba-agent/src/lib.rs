
//! taba-agent
