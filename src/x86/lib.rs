#![no_std]
//! x86
