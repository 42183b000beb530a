/** Devices' own state over a migration: VFIO's state machine at both ends of the stream. */
package dev.tidemark.engine.device;
