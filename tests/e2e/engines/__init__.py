"""What every build engine has to do, tried with each that the machine has."""
