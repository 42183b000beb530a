package dev.tidemark.engine.migrate;

import dev.tidemark.engine.stream.SectionInput;

/** A device whose data is one byte, and which notes whether it runs. */
class OneByteArrival implements IncomingDevice {
  private volatile boolean running;

  @Override
  public String name() {
    return "device";
  }

  @Override
  public int instance() {
    return 0;
  }

  @Override
  public int version() {
    return 1;
  }

  @Override
  public void start() {}

  @Override
  public void load(SectionInput input) {
    input.be8();
  }

  @Override
  public void end() {}

  @Override
  public void prepareToRun() {}

  @Override
  public void run() {
    running = true;
  }

  @Override
  public void abort() {
    running = false;
  }

  boolean isRunning() {
    return running;
  }
}
