package dev.tidemark.engine.migrate;

/** What happens when a guest still writes too fast at the last round or at the time limit. */
public enum AtLimit {
  /** The migration fails; the guest goes on running at the source. */
  FAIL,
  /** The guest is stopped and moved all the same, however long that takes. */
  STOP_AND_COPY
}
