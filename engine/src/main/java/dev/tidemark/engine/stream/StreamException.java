package dev.tidemark.engine.stream;

/**
 * The stream cannot go on: the other side sent what it must not, or stopped sending, or memory of a
 * block cannot be read or written. The message is one line: what is wrong, at which byte of the
 * stream (counted from 0), what was expected and what was found; or which page of which block.
 */
public class StreamException extends RuntimeException {
  private static final long serialVersionUID = 1L;

  /**
   * @param message one line
   */
  public StreamException(String message) {
    super(message);
  }

  /**
   * @param message one line
   * @param cause the failed call
   */
  public StreamException(String message, Throwable cause) {
    super(message, cause);
  }
}
