package dev.tidemark.engine.migrate;

import dev.tidemark.engine.stream.IterableHandler;

/**
 * A device of the destination that loads its own state, see {@link OutgoingDevice}.
 *
 * <p>Threading: called by the thread that runs the migration.
 */
public interface IncomingDevice extends IterableHandler {
  /** After go: gets the device ready to run: others may reach it, it reaches none. */
  void prepareToRun();

  /** Has the device run, once all are ready. */
  void run();

  /** The guest does not run here: has the device forget what it loaded. */
  void abort();
}
