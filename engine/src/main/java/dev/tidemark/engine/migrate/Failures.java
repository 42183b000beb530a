package dev.tidemark.engine.migrate;

/** What went wrong, kept for who looks for it, whatever else goes wrong. */
final class Failures {
  private Failures() {}

  /** One line about a failure: its message, with its class where that says more. */
  static String text(Throwable failure) {
    String message = failure.getMessage();
    return message == null || failure instanceof Error ? failure.toString() : message;
  }

  /** Logs a failure with its stack trace. Never throws. */
  static void log(System.Logger.Level level, String where, Throwable failure) {
    try {
      System.getLogger(Failures.class.getPackageName())
          .log(level, where + " failed: " + failure, failure);
    } catch (Throwable e) {
      // No memory, or a logger that fails: there is nobody left to tell.
    }
  }

  /** Adds a failure to one before it. Never throws: not even if they are the same. */
  static void add(Throwable first, Throwable later) {
    try {
      if (first != later) {
        first.addSuppressed(later);
      }
    } catch (Throwable e) {
      // No memory: the first one is what is told.
    }
  }
}
