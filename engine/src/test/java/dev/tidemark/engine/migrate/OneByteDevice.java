package dev.tidemark.engine.migrate;

import dev.tidemark.engine.stream.SectionOutput;

/** The other end of {@link OneByteArrival}. */
class OneByteDevice implements OutgoingDevice {
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
  public void setup(SectionOutput out) {
    out.be8(1);
  }

  @Override
  public void part(SectionOutput out) {
    out.be8(2);
  }

  @Override
  public long bytesSaved() {
    return 0;
  }

  @Override
  public long pendingBytes() {
    return 0;
  }

  @Override
  public boolean initialDataSent() {
    return true;
  }

  @Override
  public void quiesce() {}

  @Override
  public void stop() {}

  @Override
  public void complete(SectionOutput out) {
    out.be8(3);
  }

  @Override
  public void leave() {}

  @Override
  public void prepareToRun() {}

  @Override
  public void run() {}
}
