package dev.tidemark.engine.migrate;

import dev.tidemark.engine.stream.SectionOutput;

/** A device that is another one but for what a test changes. */
class ForwardingDevice implements OutgoingDevice {
  private final OutgoingDevice device;

  ForwardingDevice(OutgoingDevice device) {
    this.device = device;
  }

  @Override
  public String name() {
    return device.name();
  }

  @Override
  public int instance() {
    return device.instance();
  }

  @Override
  public int version() {
    return device.version();
  }

  @Override
  public void start() {
    device.start();
  }

  @Override
  public void setup(SectionOutput out) {
    device.setup(out);
  }

  @Override
  public void part(SectionOutput out) {
    device.part(out);
  }

  @Override
  public long bytesSaved() {
    return device.bytesSaved();
  }

  @Override
  public long pendingBytes() {
    return device.pendingBytes();
  }

  @Override
  public boolean initialDataSent() {
    return device.initialDataSent();
  }

  @Override
  public void quiesce() {
    device.quiesce();
  }

  @Override
  public void stop() {
    device.stop();
  }

  @Override
  public void complete(SectionOutput out) {
    device.complete(out);
  }

  @Override
  public void leave() {
    device.leave();
  }

  @Override
  public void prepareToRun() {
    device.prepareToRun();
  }

  @Override
  public void run() {
    device.run();
  }
}
