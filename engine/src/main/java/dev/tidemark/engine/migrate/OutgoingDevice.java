package dev.tidemark.engine.migrate;

import dev.tidemark.engine.stream.SectionOutput;

/**
 * A device of the source that moves its own state, as an iterable section: some of it while the
 * guest runs, the rest when it is stopped. The calls come in this order:
 *
 * <pre>
 * start, setup, part..., quiesce, stop, complete, leave
 * </pre>
 *
 * and {@code prepareToRun, run} instead, from anywhere, when the guest stays here.
 *
 * <p>Threading: called by the thread that runs the migration. Whatever a method throws fails the
 * migration, and the guest stays here.
 */
public interface OutgoingDevice {
  /** The section's name, 1 to 255 bytes of UTF-8. */
  String name();

  /** Tells sections of one name apart. */
  int instance();

  /** The version of the data's layout. */
  int version();

  /** Has the device begin to tell its state, if it can while it runs. */
  void start();

  /** Writes the section's first piece. */
  void setup(SectionOutput out);

  /** Writes what the device tells by now while the guest runs: up to 1 MiB, or nothing. */
  void part(SectionOutput out);

  /** How many bytes of the device's state were written so far. */
  long bytesSaved();

  /** How many bytes there would be to send if the device were stopped now; 0 or more. */
  long pendingBytes();

  /**
   * Whether everything was written that the other side should have before the device is stopped;
   * true for a device that tells nothing while it runs.
   */
  boolean initialDataSent();

  /** Keeps the device from reaching other devices, if it can; others may still reach it. */
  void quiesce();

  /** Stops the device: when this returns it writes no guest memory any more. */
  void stop();

  /** Writes all that is left. */
  void complete(SectionOutput out);

  /** Leaves the device stopped for good: the guest is elsewhere, or may be. */
  void leave();

  /**
   * Gets the device ready to run again: others may reach it, it reaches none.
   *
   * @throws RuntimeException if it cannot; {@link #run} is tried nevertheless
   */
  void prepareToRun();

  /** Has the device run again. */
  void run();
}
